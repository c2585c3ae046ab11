#!/bin/sh
# All that the key of CI may do on this host: its line in authorized_keys has this file as the command.
# `ssh HOST 1.2.3` rolls that release out, with the files of its tag or commit; `ssh HOST rollback` goes back.
set -eu

# In braces, so that it is read as a whole: what is checked out may have another version of this file.
{
    cd "$(dirname "$0")/../.."
    version=${SSH_ORIGINAL_COMMAND:-}
    case $version in
        rollback)
            make rollback
            ;;
        "" | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*)
            echo "That is no release. Ask for one by the tag of its image: ssh HOST 1.2.3" >&2
            exit 2
            ;;
        *)
            git fetch --quiet --tags origin
            commit=$(git rev-parse --quiet --verify "v$version^{commit}" || git rev-parse --verify "$version^{commit}")
            git checkout --quiet --detach "$commit"
            make deploy "VERSION=$version"
            ;;
    esac
    exit
}
