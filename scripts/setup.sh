#!/bin/sh
# Make the virtual environment named by the first argument, or renew it: called by make when pyproject.toml has changed.
set -eu

venv=$1

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

python=
for candidate in python3 python3.13 python3.12 python3.11; do
    if supported "$candidate"; then
        python=$candidate
        break
    fi
done

missing=
[ -n "$python" ] || missing="$missing python3 python3-venv"
# Debian's python3 comes without ensurepip, which venv needs: it is in python3-venv. A named Python has its own package.
if [ -n "$python" ] && [ ! -x "$venv/bin/python" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    missing="$missing $python-venv"
fi
# Verilator's output is compiled here: its makefile needs all three.
for tool in g++ perl make; do
    command -v "$tool" >/dev/null || missing="$missing $tool"
done
if [ -n "$missing" ]; then
    echo "Systola needs Python 3.11 to 3.13, g++, perl and make. Not found:$missing. On Debian or Ubuntu:" >&2
    echo "    sudo apt install$missing" >&2
    exit 1
fi

# A virtual environment whose Python has gone or is of another age is useless: begin again.
if [ -e "$venv" ] && ! { [ -x "$venv/bin/python" ] && supported "$venv/bin/python" && "$venv/bin/python" -c 'import pip' 2>/dev/null; }; then
    rm -rf "$venv"
fi
if [ ! -e "$venv" ]; then
    echo "Making the virtual environment $venv (once; about a minute) ..."
    "$python" -m venv "$venv"
else
    echo "Bringing the virtual environment $venv up to date ..."
fi
"$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --editable '.[sim,fpga,test]'
