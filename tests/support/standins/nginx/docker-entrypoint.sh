#!/bin/sh
# As the official image: before nginx, every /etc/nginx/templates/NAME.template becomes /etc/nginx/conf.d/NAME, with
# the variables that the environment has put in, and no other; then what is executable in /docker-entrypoint.d is run.
set -eu
if [ "$1" = nginx ]; then
    if [ -d /etc/nginx/templates ]; then
        known=$(env | sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/${\1}/p')
        output=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
        (cd /etc/nginx/templates && find . -name '*.template') | while read -r name; do
            mkdir -p "$(dirname "$output/$name")"
            envsubst "$known" <"/etc/nginx/templates/$name" >"$output/${name%.template}"
        done
    fi
    for script in /docker-entrypoint.d/*.sh; do
        if [ -x "$script" ]; then "$script"; fi
    done
fi
exec "$@"
