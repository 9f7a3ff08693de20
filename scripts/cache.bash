# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The cache directory, for the scripts that keep something there. A function that fails prints one line
# first, which says what is wrong and which variable mends it.

cache_refuse()
{
	echo "cache: $*; set XDG_CACHE_HOME to a directory that can be used" >&2
	return 1
}

# cache_find: sets $cache. The directory need not exist yet. It need not be writable either, because everybody
# who can read the cache may use what is in it.
cache_find()
{
	if [ -n "${XDG_CACHE_HOME-}" ]; then
		[[ $XDG_CACHE_HOME = /* ]] ||
			cache_refuse "XDG_CACHE_HOME=$XDG_CACHE_HOME is no absolute path" || return
		cache=$XDG_CACHE_HOME/xalloc
		return
	fi
	# A home that does not exist is not made, not even by root: build daemons set HOME to such a directory
	# so that nothing is kept.
	if [ -z "${HOME-}" ]; then
		cache_refuse "HOME is not set"
	elif [[ $HOME != /* ]]; then
		cache_refuse "HOME=$HOME is no absolute path"
	elif [ ! -d "$HOME" ]; then
		cache_refuse "HOME=$HOME is no directory"
	else
		cache=$HOME/.cache/xalloc
	fi
}

# cache_base: prints $cache, or the nearest directory above it that exists
cache_base()
{
	local dir=$cache

	while [ ! -d "${dir:-/}" ]; do
		dir=${dir%/*}
	done
	echo "${dir:-/}"
}

# cache_make DIRECTORY MB: makes DIRECTORY, which is $cache or below it, and checks that it can be written to
# and has MB megabytes free. Root does this as the owner of the directory that cache_base prints.
cache_make()
{
	local dir=$1 need_mb=$2 free_mb message as_owner

	as_owner=("${BASH_SOURCE[0]%/*}/as-owner" --of "$(cache_base)" env LC_ALL=C)
	message=$("${as_owner[@]}" mkdir -p -- "$dir" 2>&1) ||
		cache_refuse "cannot make $dir: ${message##*: }" || return
	# Make a file as a trial, because only that shows quotas and read-only mounts.
	message=$("${as_owner[@]}" mktemp "$dir/try.XXXXXX" 2>&1) ||
		cache_refuse "cannot write to $dir: ${message##*: }" || return
	rm -f -- "$message"
	free_mb=$(df --output=avail -BM -- "$dir" | tail -n 1 | tr -dc 0-9)
	[ "${free_mb:-0}" -ge "$need_mb" ] || cache_refuse "$dir has ${free_mb:-0} MB free, needs $need_mb"
}

# cache_ours FILE...: each is absent, or may be written to and removed by this user
cache_ours()
{
	local file

	for file; do
		if [ -L "$file" ] && [ ! -e "$file" ]; then
			cache_refuse "$file is a link to nowhere" || return
		elif [ -e "$file" ] && [ ! -w "$file" ]; then
			cache_refuse "$file belongs to $(stat -L -c %U -- "$file"), who may remove it" || return
		fi
	done
}
