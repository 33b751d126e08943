#!/bin/sh
# Fetches the viewer's built files, as published on npm, into a folder, whole or not at all; its ONNX
# runtime, two thirds of them, is not needed. For the tests and the image of the viewer.
#
#   sh scripts/fetch_ohif.sh FOLDER
set -eu

ohif=3.13.2
sha512=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10
target=$1
[ "$(cat "$target/VERSION" 2>/dev/null)" != $ohif ] || exit 0
mkdir -p "$(dirname "$target")"
part=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$part"' EXIT
npm pack --silent --pack-destination "$part" "@ohif/app@$ohif" >/dev/null
echo "$sha512  $part/ohif-app-$ohif.tgz" | sha512sum --check --quiet
tar -xzf "$part/ohif-app-$ohif.tgz" -C "$part" --exclude=package/dist/ort package/dist
echo $ohif >"$part/package/dist/VERSION"
rm -rf "$target"
mv "$part/package/dist" "$target"
