#!/bin/sh
# Remove the service and the program: sudo make uninstall. What people and the daemon wrote is never deleted.
set -eu

[ "$(id -u)" = 0 ] || { printf 'uninstall: expected to run as root. Received: user %s\n' "$(id -un)" >&2; exit 1; }

if [ -d /run/systemd/system ]; then
    for unit in digitd.service digitd.socket digitd-open.path digitd-web.service digitd-stream.service; do
        systemctl disable --now --quiet "$unit" 2>/dev/null || true # each by itself: an older installation lacks some
    done
fi
rm -f /usr/local/lib/systemd/system/digitd.* /usr/local/lib/systemd/system/digitd-open.* \
    /usr/local/lib/systemd/system/digitd-web.* /usr/local/lib/systemd/system/digitd-stream.* \
    /usr/local/lib/sysusers.d/digitd.conf /usr/local/lib/tmpfiles.d/digitd.conf /usr/local/bin/digitd
rm -rf /opt/digitd /var/cache/digitd
[ ! -d /run/systemd/system ] || systemctl daemon-reload

printf '%s\n' "digitd is removed. Kept, with everything in them: /var/lib/digitd, /etc/digitd, the group digitd, the users digitd and digitd-web." \
    "To remove these too: rm -rf /var/lib/digitd /etc/digitd /etc/systemd/system/digitd*.d && userdel digitd-web && userdel digitd"
