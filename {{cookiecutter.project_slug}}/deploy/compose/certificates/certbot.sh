#!/bin/sh
# With arguments: certbot. Without: renews for ever. A renewal that fails is tried again the next time, weeks before the
# old certificate ends.
set -eu
if [ $# -gt 0 ]; then exec certbot "$@"; fi
trap 'exit 0' TERM INT
while :; do
    if [ -e /etc/letsencrypt/live/service/fullchain.pem ]; then
        certbot certonly || echo "The certificate was not renewed." >&2
        RENEWED_LINEAGE=/etc/letsencrypt/live/service /certificates/install.sh # again, should it have been cut off
    fi
    sleep "$RENEW_EVERY" &
    wait $!
done
