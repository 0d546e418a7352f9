# Sourced after steps.sh by check and test: every step that runs no test.
step "format" ruff format --check .
step "lint" ruff check .
step "types" basedpyright
step "layers" lint-imports
step "generated code" python -m apex_llm.sync.generate --check
step "public types" basedpyright --ignoreexternal --verifytypes apex_llm
