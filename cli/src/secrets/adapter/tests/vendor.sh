#!/bin/sh
# Stands in for a vendor's program: checks the arguments (and BW_SESSION) of its n-th call against
# the file calls/n.args beside the name it was called by, and answers with n.out and n.code.
dir=$(dirname "$0")/calls
n=$(($(cat "$dir/count") + 1))
echo "$n" >"$dir/count"
{ [ -z "${BW_SESSION+x}" ] || printf 'BW_SESSION=%s\n' "$BW_SESSION"; printf '%s\n' "$@"; } >"$dir/$n.called"
cmp -s "$dir/$n.args" "$dir/$n.called" || { echo "$n" >>"$dir/wrong"; exit 99; }
cat "$dir/$n.out"
exit "$(cat "$dir/$n.code")"
