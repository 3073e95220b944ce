#!/usr/bin/env bash
# Sets up, builds and runs every test.
#     scripts/test.sh                         the tests
#     scripts/test.sh --sanitizers            the same under AddressSanitizer and UndefinedBehaviorSanitizer
#     scripts/test.sh [--sanitizers] io data  those of some folders of tests/ only
. "$(dirname "$0")/common.sh"

preset=cpu targets=() folders=()
for argument in "$@"; do
    case "$argument" in
        --sanitizers) preset=asan ;;
        *) [ -d "tests/$argument" ] && [ "$argument" != golden ] ||
            fail "unknown argument $argument; usage: scripts/test.sh [--sanitizers] [FOLDER OF tests/ ...]"
            targets+=("${argument}_tests") folders+=("$argument") ;;
    esac
done
selected=()
[ ${#folders[@]} -gt 0 ] && selected=(--tests-regex "^($(IFS='|'; echo "${folders[*]}"))\\.")

install_packages
install_libtorch cpu
build "$preset" "${targets[@]}"
say "Running the tests ($preset)"
# LibTorch keeps what it allocates once until the end, which is no leak of ours.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
ctest --preset "$preset" "${selected[@]}" --output-on-failure --parallel "$(nproc)" 2>&1 | grep -vE '^ +Start |Passed +[0-9.]+ sec$'
exit "${PIPESTATUS[0]}"
