#!/usr/bin/env bash
# Installs the build of scripts/test.sh into a fresh folder, builds examples/classify against it as a program of its own,
# and classifies a picture with it: what a user of the library does.
. "$(dirname "$0")/common.sh"

install_packages
install_libtorch cpu
build cpu
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
say "Installing into a fresh folder, and building examples/classify against it"
{ cmake --install build/cpu --prefix "$prefix" &&
    env -u LIBTORCH_ROOT cmake -S examples/classify -B "$prefix/build" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release &&
    cmake --build "$prefix/build"; } > "$prefix/log" 2>&1 || { tail -n 20 "$prefix/log" >&2; fail "that did not work"; }
"$prefix/build/classify" configs/shapes_dense.safetensors tests/golden/images/*.jpg | tail -n 4
