# SPDX-License-Identifier: MIT
"""From a disassembled x86-64 instruction (AT&T syntax) to the CPU features beyond SSE2 that it needs."""

from __future__ import annotations

import re

# What a wide instruction of these words needs, besides AVX512F for its registers.
BYTES_AND_WORDS = (
    r"vp(add|sub|adds|subs|addus|subus|avg|blendm|broadcast|cmpeq|cmpgt|cmpn?eqn?u?|cmpu?|test|testn|mov)[bw]$"
    r"|vp(maddubsw|maddwd|shufb|shuf[hl]w|[sm]ul[hl]*u?w|mulhrsw|ack[su]s(wb|dw)|ackus(wb|dw)|abs[bw]|sadbw|alignr|dbpsadbw)"
    r"|vp(min|max)[su][bw]|vps[rl][la]v?w|vps[rl]ldq|vpermi2w|vpermt2w|vpermw|vpmov[sz]xbw|vpmovs?u?s?wb"
    r"|vpunpck[hl](bw|wd)|vmovdqu(8|16)|vpmov([bw]2m|m2[bw])"
)
DOUBLE_AND_QUAD = (
    r"vpmullq|v(extract|insert)[fi](64x2|32x8)|vbroadcast[fi](32x2|64x2|32x8)|vrange|vreduce|vfpclass"
    r"|vcvtt?p[sd]2u?qq|vcvtu?qq2p|v(andn?|x?or)p[sd]$|vpmov([dq]2m|m2[dq])"
)
MASKS = r"k(mov|and|andn|or|xor|xnor|not|ortest|shift[lr]|unpck|add|test)"

# Later instruction sets, which no tier asks for; AVX-512's among them are in the same encoding as its others.
UNUSED = {
    "avx512ifma": r"vpmadd52",
    "avx512vbmi2": r"vp(compress|expand)[bw]|vpsh[lr]dv?[wdq]",
    "avx512cd": r"vplzcnt|vpconflict|vpbroadcastm",
    "avx512bitalg": r"vpopcnt|vpshufbitqmb",
    "avx512bf16": r"vdpbf16|vcvtne",
    "avx512fp16": r"(?!vcvtps2ph$)v\w+[ps]h$|vmovw$",
    "gfni": r"v?gf2p8",
    "aes": r"v?aes",
    "pclmul": r"v?pclmul",
    "sha": r"sha(1|256)",
    "xop": r"vphadd(bw|bd|bq|wd|wq|dq|u)|vpmacs|vprot[bwdq]$|vfrcz|vpcom[^p]",
    # tzcnt is not here: baseline code has it as `rep bsf`, which older CPUs execute as bsf.
    "bmi": r"andn[lq]?$|bextr|bls(i|r|msk)|bzhi|mulx|pdep|pext[lq]?$|rorx|sarx|sh[lr]x|lzcnt",
    "other": r"movbe|adcx|adox|rdrand|rdseed|xsave|xrstor|clwb|movdir|serialize",
}
SSE3 = r"(addsub|hadd|hsub)p[sd]|fisttp|lddqu|movddup|movs[hl]dup|mwait"
SSSE3 = r"pshufb|ph(add|sub)|pmaddubsw|pmulhrsw|pabs|psign|palignr"
SSE4 = (
    r"p?blend|dpp[sd]|extractps|insertps|mpsadbw|movntdqa|packusdw|pcmp(eqq|gtq|[ei]str)|pextr[bdq]|pinsr[bdq]"
    r"|phminpos|p(min|max)(sb|sd|uw|ud)|pmov[sz]x|pmuldq|pmulld|ptest|round[ps][sd]|crc32|popcnt"
)
TILES = {
    "amx-int8": r"tdpb[su][su]d",
    "amx-tile": r"(ld|st)tilecfg|tileload|tilestore|tilerelease|tilezero",
    "amx-other": r"tdp|tcmm|tmm",
}
# A CPU with the first has the others.
IMPLIED = {"avx2": {"sse"}, "avx512f": {"avx2", "fma", "f16c", "sse"}, "avxvnni": {"avx2", "sse"}}


def needs(instruction: str) -> set[str]:
    """Features, as compilers call them; empty for what every x86-64 has."""
    vex = instruction.startswith("{vex}")
    mnemonic, _, operands = instruction.removeprefix("{vex}").strip().partition(" ")
    for name, pattern in TILES.items():
        if re.match(pattern, mnemonic):
            return {name}
    for name, pattern in UNUSED.items():
        if re.match(pattern, mnemonic):
            return {name}
    if re.match("|".join((SSE3, SSSE3, SSE4)), mnemonic):
        return {"sse"}
    if re.match(MASKS, mnemonic) and "%k" in operands:
        double = re.search(r"b$", mnemonic) is not None or re.match(r"k(add|test)w", mnemonic) is not None
        wide = re.search(r"[dq]$", mnemonic) is not None
        return {"avx512f"} | ({"avx512dq"} if double else set()) | ({"avx512bw"} if wide else set())
    if not mnemonic.startswith("v") and "%ymm" not in operands and "%zmm" not in operands:
        return set()
    return _vector(mnemonic, operands, vex)


def _vector(mnemonic: str, operands: str, vex: bool) -> set[str]:
    wide = "%zmm" in operands
    later_registers = re.search(r"%[xy]mm(1[6-9]|2\d|3[01])|%k[0-7]", operands) is not None
    later_names = re.match(r"vmovdq[au](8|16|32|64)|vp(andn?|x?or)[dq]$|vpternlog|vpmov\w+2m", mnemonic) is not None
    byte_table = re.match(r"vpermb|vperm[it]2b|vpmultishiftqb", mnemonic) is not None
    dot = re.match(r"vpdp(bus|wss)d", mnemonic) is not None
    if not (wide or later_registers or later_names or byte_table or (dot and not vex)):
        if dot:
            return {"avx2", "avxvnni"}
        if re.match(r"vfn?m(add|sub)", mnemonic):
            return {"avx2", "fma"}
        return {"avx2", "f16c"} if re.match(r"vcvtp[hs]2p[hs]", mnemonic) else {"avx2"}
    found = {"avx512f"}
    # Without a 512-bit register, all but single values and moves of them is the VL extension.
    if not wide and not re.match(r"v(?!p)\w*s[sd](2|$)|vmov[dq]$", mnemonic):
        found.add("avx512vl")
    found |= {"avx512vbmi"} if byte_table else set()
    found |= {"avx512vnni"} if dot else set()
    found |= {"avx512bw"} if re.match(BYTES_AND_WORDS, mnemonic) else set()
    return found | ({"avx512dq"} if re.match(DOUBLE_AND_QUAD, mnemonic) else set())


def with_implied(features: set[str]) -> set[str]:
    return features.union(*(IMPLIED.get(feature, set()) for feature in features))
