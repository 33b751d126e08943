#!/bin/sh
# Installs the real peers that the tests talk to, where that can be done: Debian and root.
# Anywhere else it says which tests will be skipped and why, and goes on.
set -u

missing=""
need() { # need COMMAND PACKAGE...
	command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1 || { shift; missing="$missing $*"; }
}
need Orthanc orthanc orthanc-dicomweb
need storescu dcmtk
need dcm2niix dcm2niix
need dciodvfy dicom3tools
need chromium chromium
need initdb postgresql
need promtool prometheus

if [ -z "$missing" ]; then
	:
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	echo "Installing for the tests:$missing"
	export DEBIAN_FRONTEND=noninteractive
	log=$(mktemp)
	# Debian starts Orthanc and PostgreSQL as services at once; the tests start their own.
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

command -v npm >/dev/null 2>&1 && sh scripts/fetch_ohif.sh .venv/ohif ||
	echo "OHIF could not be fetched (that needs npm), so its tests are skipped"

# What finds in a page where somebody would be left out, as published on npm.
axe=4.14.1
sha512=1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b734f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5
fetch_axe() { # whole or not at all
	mkdir -p .venv && part=$(mktemp -d .venv/axe.XXXXXX) || return 1
	npm pack --silent --pack-destination "$part" "axe-core@$axe" >/dev/null &&
		echo "$sha512  $part/axe-core-$axe.tgz" | sha512sum --check --quiet &&
		tar -xzf "$part/axe-core-$axe.tgz" -C "$part" package &&
		echo $axe >"$part/package/VERSION" &&
		rm -rf .venv/axe && mv "$part/package" .venv/axe
	status=$?
	rm -rf "$part"
	return $status
}
if [ "$(cat .venv/axe/VERSION 2>/dev/null)" != $axe ]; then
	command -v npm >/dev/null 2>&1 && fetch_axe ||
		echo "axe-core could not be fetched (that needs npm), so its tests are skipped"
fi
exit 0
