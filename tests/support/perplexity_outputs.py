# SPDX-License-Identifier: MIT
"""What llama-perplexity said in three runs over the bundled model, word for word; only the table of chunks is cut."""

from __future__ import annotations

# i2_s with a q8_0 head, -c 256 -b 512 --chunks 8 --save-all-logits
PLAIN = """\
0.02.407.607 I perplexity: saving all logits to /tmp/perplexity-7qvb75yo/model.logits
0.02.407.678 I perplexity: tokenizing the input ..
0.02.515.704 I perplexity: tokenization took 108.004 ms
0.02.516.041 I perplexity: calculating perplexity over 8 chunks, n_ctx=256, batch_size=512, n_seq=2
0.02.692.663 I perplexity: 0.17 seconds per pass - ETA 0.00 minutes
[1]306265.9407,[2]478509.8019,[3]321650.4728,[4]351983.5500,[5]373650.0971,[6]382315.1831,[7]476123.6241,[8]486597.0785,
0.03.315.131 I Final estimate: PPL = 486597.0785 +/- 118595.71278
""".splitlines()

# The same file with --kl-divergence, the reference having an f16 head.
DIVERGENCE = """\
0.02.590.814 I kl_divergence: computing over 8 chunks, n_ctx=256, batch_size=512, n_seq=2
0.02.710.730 I kl_divergence: 0.12 seconds per pass - ETA 0.00 minutes


====== Perplexity statistics ======
Mean PPL(Q)                   : 486597.078503 ± 118595.713081
Mean PPL(base)                : 78138.580028 ± 14457.378511
Cor(ln(PPL(Q)), ln(PPL(base))):  94.87%
Mean ln(PPL(Q)/PPL(base))     :   1.828953 ±   0.089829
Mean PPL(Q)/PPL(base)         :   6.227360 ±   0.559395
Mean PPL(Q)-PPL(base)         : 408458.498474 ± 104978.930788

====== KL divergence statistics ======
Mean    KLD:   0.001271 ±   0.000180
Maximum KLD:   0.105875
99.9%   KLD:   0.070188
99.0%   KLD:   0.021984
95.0%   KLD:   0.006314
90.0%   KLD:   0.002222
Median  KLD:   0.000004
10.0%   KLD:   0.000000
 5.0%   KLD:  -0.000000
 1.0%   KLD:  -0.000001
 0.1%   KLD:  -0.000002
Minimum KLD:  -0.000004

====== Token probability statistics ======
Mean    Δp:  0.024 ± 0.031 %
Maximum Δp: 16.000%
99.9%   Δp: 13.294%
99.0%   Δp:  1.443%
95.0%   Δp:  0.027%
90.0%   Δp:  0.001%
75.0%   Δp:  0.000%
Median  Δp: -0.000%
25.0%   Δp: -0.000%
10.0%   Δp: -0.000%
 5.0%   Δp: -0.034%
 1.0%   Δp: -1.569%
 0.1%   Δp: -6.882%
Minimum Δp: -9.461%
RMS Δp    :  0.994 ± 0.188 %
Same top p: 99.311 ± 0.260 %
""".splitlines()

# A text of 137 tokens, -c 256; the program ends with 0.
TOO_SHORT = """\
0.03.298.402 I perplexity: tokenizing the input ..
0.03.298.470 I perplexity: tokenization took 0.06 ms
0.03.298.481 E perplexity: you need at least 512 tokens to evaluate perplexity with a context of 256
0.03.298.592 E perplexity: the data file you provided tokenizes to only 137 tokens
""".splitlines()
