# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs jobs beside each other, as many at a time as there are CPUs, for the scripts that have many to run.

# jobs_run DIRECTORY RUN DONE NAME...: for each NAME, in their order, "RUN NAME" in a process group of its own, with
# its output in DIRECTORY/NAME.out; when it has ended, "DONE NAME STATUS SECONDS" here. The caller's trap for EXIT
# calls jobs_kill, which ends the jobs that still run.
jobs_run()
{
	local directory=$1 run=$2 done=$3 name

	declare -gA jobs_running=()
	declare -A began=()
	shift 3
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	for name; do
		[ ${#jobs_running[@]} -lt "$(nproc)" ] || jobs_wait
		began[$name]=$SECONDS
		set -m
		(
			trap - EXIT
			"$run" "$name"
		) </dev/null >"$directory/$name.out" 2>&1 &
		set +m
		jobs_running[$!]=$name
	done
	while [ ${#jobs_running[@]} -gt 0 ]; do
		jobs_wait
	done
}

# Waits until one job has ended; a part of jobs_run, whose variables it uses.
jobs_wait()
{
	local pid status=0 name

	wait -n -p pid "${!jobs_running[@]}" || status=$?
	name=${jobs_running[$pid]}
	unset "jobs_running[$pid]"
	"$done" "$name" "$status" $((SECONDS - began[$name]))
}

jobs_kill()
{
	local pid

	for pid in "${!jobs_running[@]}"; do
		kill -- "-$pid" 2>/dev/null || :
	done
}
