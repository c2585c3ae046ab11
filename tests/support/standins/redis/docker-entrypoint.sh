#!/bin/sh
# As the official image: options alone are redis-server's, which runs as `redis`, and listens to others too.
set -eu
case "${1:-}" in -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ]; then
    shift
    set -- redis-server --protected-mode no --bind '* -::*' "$@"
    [ "$(id -u)" != 0 ] || {
        chown redis:redis . && set -- setpriv --reuid=redis --regid=redis --clear-groups "$@"
    }
fi
exec "$@"
