#!/usr/bin/env bash
# Sets up, builds and runs every test.
#     scripts/test.sh                the tests
#     scripts/test.sh --sanitizers   the same under AddressSanitizer and UndefinedBehaviorSanitizer
. "$(dirname "$0")/common.sh"

preset=cpu
case "${1:-}" in
    "") ;;
    --sanitizers) preset=asan ;;
    *) fail "unknown argument $1; usage: scripts/test.sh [--sanitizers]" ;;
esac

install_packages
install_libtorch cpu
build "$preset"
say "Running the tests ($preset)"
# LibTorch keeps what it allocates once until the end, which is no leak of ours.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
ctest --preset "$preset" --output-on-failure --parallel "$(nproc)" 2>&1 | grep -vE '^ +Start |Passed +[0-9.]+ sec$'
exit "${PIPESTATUS[0]}"
