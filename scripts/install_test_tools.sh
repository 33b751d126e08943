#!/bin/sh
# Installs the real peers that the tests talk to, where that can be done: Debian and root.
# Anywhere else it says which tests will be skipped and why, and goes on.
set -u

missing=""
need() { # need COMMAND PACKAGE...
	command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || { shift; missing="$missing $*"; }
}
need Orthanc orthanc orthanc-dicomweb
need storescu dcmtk
need dcm2niix dcm2niix
need dciodvfy dicom3tools
need chromium chromium

if [ -z "$missing" ]; then
	:
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "Installing for the tests:$missing"
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	# Debian starts Orthanc as a service at once; the tests start their own.
	policy=/usr/sbin/policy-rc.d
	[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod +x $policy && made=1; }
	# shellcheck disable=SC2086 - a list of package names
	{ apt-get update && apt-get install --yes --no-install-recommends $missing; } >"$log" 2>&1
	status=$?
	[ -n "${made:-}" ] && rm -f $policy
	[ $status = 0 ] || { tail -n 5 "$log"; echo "Could not install:$missing"; }
	rm -f "$log"
else
	echo "Not installed here (that needs root on Debian), so their tests are skipped:$missing"
fi

# The viewer's built files, as published; its ONNX runtime, two thirds of them, is not needed.
ohif=3.13.2
sha512=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10
target=.venv/ohif
fetch_ohif() { # into $target, whole or not at all
	part=$(mktemp -d .venv/ohif.XXXXXX) || return 1
	npm pack --silent --pack-destination "$part" "@ohif/app@$ohif" >/dev/null &&
		echo "$sha512  $part/ohif-app-$ohif.tgz" | sha512sum --check --quiet &&
		tar -xzf "$part/ohif-app-$ohif.tgz" -C "$part" --exclude=package/dist/ort package/dist &&
		echo $ohif >"$part/package/dist/VERSION" &&
		rm -rf "$target" && mv "$part/package/dist" "$target"
	status=$?
	rm -rf "$part"
	return $status
}
if [ "$(cat $target/VERSION 2>/dev/null)" != $ohif ]; then
	command -v npm >/dev/null 2>&1 && mkdir -p .venv && fetch_ohif ||
		echo "OHIF $ohif could not be fetched (that needs npm), so its tests are skipped"
fi
exit 0
