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

command -v npm >/dev/null 2>&1 && sh scripts/fetch_ohif.sh .venv/ohif ||
	echo "OHIF could not be fetched (that needs npm), so its tests are skipped"
exit 0
