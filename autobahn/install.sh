#!/usr/bin/env bash
# Makes the Autobahn test suite runnable: with a Docker engine running, nothing has to be
# installed; otherwise the suite (which is Python 2) goes, with an interpreter of its own, into the
# private root autobahn/.suite. Nothing outside that directory is changed and root is not needed.
# A second call returns at once.
#
#   AUTOBAHN_RUNTIME=docker|private   do not look for Docker, use this
#   AUTOBAHN_DEBIAN_MIRROR=URL        where bullseye is, if the machine's own mirrors lack it
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/lib.sh"

# The last Debian release that has PyPy for Python 2, and what PyPy needs that newer ones lack.
release=bullseye
packages=(pypy pypy-lib pypy-dev libffi7 libssl1.1)
# The last versions that run on Python 2.
installers=(pip==20.3.4 setuptools==44.1.1 wheel==0.37.1)
# zope.interface and twisted are built with these already on PYTHONPATH.
build_pins=(incremental==17.5.0 typing attrs==20.3.0 six)
pins=(zope.interface==5.5.2 twisted==20.3.0 txaio==2.1.0 autobahn==0.10.9 jinja2==2.11.3
      markupsafe==1.1.1 werkzeug==0.16.1 klein==20.6.0 unittest2==1.1.0 hyperlink==21.0.0
      Automat==20.2.0)
suite_pin=autobahntestsuite==25.10.1 # --no-deps: its list of them is stale

main() {
    if [ "$(autobahn_runtime)" = docker ]; then
        # Nothing to install; only the image must be here before a run's clock starts.
        docker image inspect "$image" >/dev/null 2>&1 || timeout 600 docker pull "$image" ||
            fail "cannot pull $image"
        return
    fi
    # The marker names what was installed: another recipe installs anew.
    recipe=$(sha256sum <"$here/install.sh" | cut -d " " -f 1)
    [ "$(cat "$suite/.complete" 2>/dev/null)" = "$recipe" ] && return

    need_tools
    echo "autobahn: installing the suite into $suite"
    mkdir -p "$suite"
    exec 9>"$suite/.lock"
    timeout 300 flock 9 || fail "another installation has held $suite/.lock for 5 minutes"
    [ "$(cat "$suite/.complete" 2>/dev/null)" = "$recipe" ] && return
    # Everything but the lock, which is held.
    find "$suite" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +

    install_interpreter
    install_suite
    private_wstest --help >/dev/null 2>"$suite/log" || fail_with_log "wstest does not start"
    rm -rf "$suite/apt" "$suite/wheels" "$suite/build" "$suite/log"
    echo "$recipe" >"$suite/.complete"
    echo "autobahn: installed"
}

need_tools() {
    local tool
    for tool in apt-get dpkg dpkg-deb flock python3 cc; do
        command -v "$tool" >/dev/null ||
            fail "no \`$tool\` here: the private suite needs Debian's tools; start a Docker engine instead"
    done
    python3 -m pip --version >/dev/null 2>&1 || fail "python3 has no pip (Debian: python3-pip)"
}

# Unpacks the packages into $suite/root. apt gets directories, sources and status of its own, so it
# neither needs root nor sees the machine's packages; the rest of the machine's settings (proxies,
# credentials) stay in force.
install_interpreter() {
    local keyring mirror
    for keyring in /usr/share/keyrings/debian-archive-keyring.{gpg,pgp} none; do
        [ -r "$keyring" ] && break
    done
    [ "$keyring" != none ] || fail "Debian's signing keys are missing (package debian-archive-keyring)"

    local apt_dir=$suite/apt
    mkdir -p "$apt_dir"/{state/lists/partial,cache/archives/partial,debs}
    : >"$apt_dir/status"
    cat >"$apt_dir/apt.conf" <<CONF
Dir::State "$apt_dir/state";
Dir::State::status "$apt_dir/status";
Dir::Cache "$apt_dir/cache";
Dir::Etc::sourcelist "$apt_dir/sources.list";
Dir::Etc::sourceparts "-";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
// The machine's hooks would clean or refresh the machine's own directories.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
CONF
    for mirror in $(mirrors); do
        echo "deb [signed-by=$keyring] $mirror $release main" >"$apt_dir/sources.list"
        # --error-on=any: a mirror without the release is otherwise a mere warning.
        if timeout 180 apt-get -c "$apt_dir/apt.conf" -qq --error-on=any update >>"$suite/log" 2>&1; then
            (cd "$apt_dir/debs" &&
                timeout 300 apt-get -c "$apt_dir/apt.conf" -qq download "${packages[@]}") \
                >>"$suite/log" 2>&1 || fail_with_log "cannot download ${packages[*]}"
            local deb
            for deb in "$apt_dir"/debs/*.deb; do
                dpkg-deb -x "$deb" "$suite/root" || fail "cannot unpack ${deb##*/}"
            done
            "$suite_python" -c 'import ssl, zlib' 2>>"$suite/log" || fail_with_log "PyPy does not start"
            return
        fi
    done
    fail_with_log "no mirror of this machine has Debian $release: set AUTOBAHN_DEBIAN_MIRROR"
}

# The machine's Debian mirrors, one a line. Origin is unknown where no lists have been fetched yet.
mirrors() {
    if [ -n "${AUTOBAHN_DEBIAN_MIRROR:-}" ]; then
        echo "$AUTOBAHN_DEBIAN_MIRROR"
        return
    fi
    apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk '$1 ~ /^https?:/ && $2 == "main" && ($3 == "Debian" || $3 ~ /ORIGIN/ || $3 == "") && !seen[$1]++ { print $1 }'
}

# Installs the suite into $suite/site. PyPy has no pip of its own: the machine's fetches one for it.
install_suite() {
    local wheel
    timeout 180 python3 -m pip download --quiet --no-deps --only-binary=:all: --platform any \
        --python-version 27 --implementation py --abi none \
        --dest "$suite/wheels" "${installers[@]}" >>"$suite/log" 2>&1 ||
        fail_with_log "cannot download ${installers[*]}"
    for wheel in "$suite"/wheels/*.whl; do
        python3 -m zipfile -e "$wheel" "$suite/build/installers"
    done
    export PYTHONPATH=$suite/build/installers:$suite/build/requirements
    pip2 "$suite/build/requirements" "${build_pins[@]}"
    pip2 "$suite/site" "${pins[@]}"
    pip2 "$suite/site" --no-deps "$suite_pin"
    unset PYTHONPATH
}

# `pip2 TARGET ARGUMENT...`: pip under the private PyPy. No compiled files: they would name paths.
pip2() {
    local target=$1
    shift
    timeout 300 "$suite_python" -m pip install --quiet --no-compile --no-warn-script-location \
        --target "$target" "$@" >>"$suite/log" 2>&1 || fail_with_log "cannot install $*"
}

fail_with_log() {
    tail -n 20 "$suite/log" >&2 || true
    fail "$@"
}

main
