# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# For tests in bash that print TAP: counts them, in $nr, and whether one failed, in $failed.

nr=0 failed=0

# check NAME COMMAND...: the command ends with 0; what it printed is shown where it does not
check()
{
	local name=${0##*/}.$1 output
	shift

	nr=$((nr + 1))
	if output=$("$@" 2>&1); then
		echo "ok $nr $name"
	else
		printf '%s\n' "$output" | sed 's/^/# /'
		echo "not ok $nr $name"
		# shellcheck disable=SC2034 # whose exit status it becomes
		failed=1
	fi
}
