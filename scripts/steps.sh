# Sourced by the scripts beside it: runs named steps, one line each, and tells at the end which failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
scripts/bootstrap --quiet
export PATH="$PWD/.venv/bin:$PATH"
failed=()

report() { # name, exit code, seconds
    local verdict=ok
    if [[ "$2" -ne 0 ]]; then
        verdict=FAILED
        failed+=("$1")
    fi
    printf '%-22s %-6s %4d s\n' "$1" "$verdict" "$3"
}

# A step whose output matters only when it fails.
step() { # name, command ...
    local name="$1" began=$SECONDS code=0 output
    shift
    output="$("$@" 2>&1)" || code=$?
    [[ $code -eq 0 ]] || printf '%s\n' "$output"
    report "$name" "$code" $((SECONDS - began))
}

# A step that is worth watching.
shown_step() { # name, command ...
    local name="$1" began=$SECONDS code=0
    shift
    "$@" || code=$?
    report "$name" "$code" $((SECONDS - began))
}

finish() {
    if [[ ${#failed[@]} -gt 0 ]]; then
        printf -v list '%s, ' "${failed[@]}"
        echo "FAILED in $SECONDS s: ${list%, }"
        exit 1
    fi
    echo "all good in $SECONDS s"
}
