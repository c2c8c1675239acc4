#!/bin/sh
# Install digitd as a service, or upgrade it in place: sudo make install
#
# The program gets a virtual environment of its own below /opt/digitd. It is built beside the one in use, which is replaced
# only when the new one is complete and accepts the configuration; if the new one does not become ready, the old one comes back,
# with its units.
# PYTHON names the interpreter (default: python3).
set -eu
umask 022 # sudo keeps a stricter one of the person who types it, and the service could not read its program

source=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=${PYTHON:-python3}
program=/opt/digitd
config=/etc/digitd/config.toml
root=/var/lib/digitd
units=/usr/local/lib/systemd/system

say() { printf '%s\n' "$*"; }
lay_in() { runuser -u digitd -- install -m 640 "$share/$1" "$root/$1"; } # as the service's user, who may plant links there
die() { printf 'install: %s\n' "$*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "expected to run as root. Received: user $(id -un). Use: sudo make install"
[ -d /run/systemd/system ] || die "expected a machine that systemd runs. Without it, use: make run"
"$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null ||
    die "expected Python 3.11, 3.12 or 3.13 with venv and ensurepip (Debian: python3-venv). Received: $("$python" --version 2>&1)"

mkdir -p "$program"
release=$program/$(date -u +%Y%m%dT%H%M%SZ)
before=$(readlink "$program/current" || true)
trap 'rm -rf "$release"' EXIT
say "building   $release (this takes minutes: TensorFlow is large)"
"$python" -m venv "$release"
service=digitd.service
set -- -r "$source/requirements.txt"
if systemctl is-enabled --quiet digitd-stream.service 2>/dev/null; then # which takes the daemon's place, and needs the extra
    service=digitd-stream.service
    set -- "$@" -r "$source/requirements-spark.txt"
fi
"$release/bin/pip" install --quiet --disable-pip-version-check --require-hashes "$@"
"$release/bin/pip" install --quiet --disable-pip-version-check --no-deps "$source"
mkdir "$release/units"
cp "$source/systemd/"*.service "$source/systemd/"*.socket "$source/systemd/"*.path "$release/units/"
share=$("$release/bin/python" -P -c 'import daemon.config; print(daemon.config.SHARE)')

if [ -e "$config" ]; then
    say "kept       $config"
else
    install -d -m 755 "${config%/*}"
    sed "s|^root = \"\.\" |root = \"$root\" |" "$share/config.toml" >"$config.new"
    grep -q "^root = \"$root\"" "$config.new" || die "expected a line 'root = \".\"' in $share/config.toml. Received: none"
    chmod 644 "$config.new"
    mv "$config.new" "$config"
    say "made       $config"
fi
"$release/bin/python" -P -c 'import pathlib, sys, daemon.config; daemon.config.load_settings(pathlib.Path(sys.argv[1]))' "$config" ||
    die "the new version does not accept $config, see above. Nothing was changed; edit it and try again"

install -D -m 644 "$source/systemd/digitd.sysusers" /usr/local/lib/sysusers.d/digitd.conf
install -D -m 644 "$source/systemd/digitd.tmpfiles" /usr/local/lib/tmpfiles.d/digitd.conf
systemd-sysusers digitd.conf
systemd-tmpfiles --create digitd.conf
if [ -z "$(find "$root/models" -name 'v*.json' -print -quit)" ]; then
    for file in models/v0001.h5 models/v0001.json; do # the manifest last: without it there is no version
        lay_in "$file"
    done
    say "laid in    the shipped model"
fi
for file in datasets/mnist.npz datasets/scans.npz datasets/NOTICE; do
    [ -e "$root/$file" ] || lay_in "$file"
done
token=${config%/*}/web-token # whoever may look at the answers may read it
if [ ! -e "$token" ]; then
    (umask 077 && "$python" -c 'import secrets; print(secrets.token_urlsafe(32))' >"$token.new")
    chgrp digitd "$token.new" && chmod 640 "$token.new" && mv "$token.new" "$token"
fi
cat >/usr/local/bin/digitd <<WRAPPER
#!/bin/sh
cd "\$PWD" 2>/dev/null || cd / # sudo -u digitd from a home that is nobody else's: Python's children could not follow
DIGITD_CONFIG=\${DIGITD_CONFIG:-$config} exec $program/current/bin/digitd "\$@"
WRAPPER
chmod 755 /usr/local/bin/digitd

use() { # make a release the one in use, with its units, and start it
    install -D -m 644 -t "$units" "$1/units/"* &&
        ln -sfn "$1" "$program/current.new" &&
        mv -T "$program/current.new" "$program/current" &&
        systemctl daemon-reload &&
        systemctl enable --quiet "$service" &&
        systemctl restart "$service" &&
        { systemctl try-restart digitd-web.service || true; }
}

say "starting   $service"
if ! use "$release"; then
    journalctl --unit "$service" --lines 30 --no-pager >&2 || true
    if [ -n "$before" ]; then
        use "$before" && die "the new version did not become ready, see above; $before runs again"
    fi
    trap - EXIT
    die "$service did not become ready, see above. It is installed; try again with: systemctl restart $service"
fi
trap - EXIT
for old in "$program"/2*Z; do
    [ "$old" = "$release" ] || rm -rf "$old"
done

say "ready      drop images into $root/inbox; results appear in $root/results"
say "           let somebody do so: usermod --append --groups digitd NAME"
say "           let people look and correct in a browser: systemctl enable --now digitd-web"
say "           http://127.0.0.1:9787/metrics, journalctl --unit digitd"
