// SPDX-License-Identifier: MIT
/// A look-up kernel for another kind of CPU: its name, and nothing to call. Included by the others.

#if defined(__clang__)
// Of the configuration that follows.
#pragma clang diagnostic ignored "-Wunused-const-variable"
#endif

namespace {

template <class C>
constexpr trit_lookup_kernel lookup_kernel() {
    return {C::kName, C::kTier, C::kPacking, trit_never, 0, 0, 0, 0, nullptr, nullptr};
}

}  // namespace
