#!/usr/bin/env bash
# Makes .venv/totalsegmentator, a Python with TotalSegmentator on top of the packages of .venv, for the tests; instant
# when nothing changed since the last time. Needs .venv (scripts/setup.sh). No weights are fetched.
#
# An environment of its own: TotalSegmentator's dependency fury asks for vtk<9.4, slicer-core for vtk 9.6.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

base=.venv/bin/python
venv=.venv/totalsegmentator
packages=Testing/support/totalsegmentator_packages.txt
stamp=$venv/.setup-stamp
folder='import sysconfig; print(sysconfig.get_path("purelib"))'

state=$({ pwd; cat .venv/.setup-stamp "$packages" scripts/setup_totalsegmentator.sh; } | cksum)
[ "$(cat $stamp 2>/dev/null)" != "$state" ] || exit 0

echo "setup: installing TotalSegmentator into $venv for the tests (170 MB)"
"$base" -m venv --clear --without-pip "$venv"
"$base" -c "$folder" >"$("$venv/bin/python" -c "$folder")/engine.pth"
# Without build isolation: acvl_utils comes as source, and is built by the setuptools of .venv.
"$base" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check --retries 2 --timeout 20 \
    --no-deps --no-build-isolation --requirement "$packages"
echo "$state" >$stamp
echo "setup: done after $SECONDS s"
