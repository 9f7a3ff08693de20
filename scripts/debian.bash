# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# For scripts that fetch from Debian: which suite this machine runs, and where the other suites are. A script
# that reads this file has a function die(), which is called with what is wrong.

# Prints the name of this machine's suite of Debian; nothing on another system.
own_suite()
{
	# shellcheck source=/dev/null
	(. /etc/os-release && [ "${ID-}" = debian ] && echo "${VERSION_CODENAME-}") || :
}

# sources_of SUITE: prints the lines of apt's sources for SUITE, on the mirrors that this machine's own sources
# name. For backports, the lines of the suite that they extend come first.
sources_of()
{
	local base=${1%-backports} own targets main security deb=deb
	local keys=/usr/share/keyrings/debian-archive-keyring.gpg

	own=$(own_suite)
	[ -n "$own" ] || die "needs Debian, from which it fetches with apt; this is another system"
	# shellcheck disable=SC2016 # these are apt's variables
	targets=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 'Component: main')
	main=$(sed -n "s,^$own ,,p" <<<"$targets" | head -n 1)
	security=$(sed -n "s,^$own-security ,,p" <<<"$targets" | head -n 1)
	[ -n "$main" ] || die "apt has no source for Debian's $own, which names the mirror"
	[ ! -e "$keys" ] || deb="deb [signed-by=$keys]"
	echo "$deb $main $base main"
	echo "$deb $main $base-updates main"
	[ -z "$security" ] || echo "$deb $security $base-security main"
	[ "$1" = "$base" ] || echo "$deb $main $1 main"
}
