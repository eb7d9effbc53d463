# Run by ./dev, which sets up .venv first: ./dev RECIPE [ARGS].

set positional-arguments

python := ".venv/bin/python"

# lists the recipes
[private]
default:
    @.venv/bin/just --list --unsorted

# shows the whole system at work on this machine, from submit to a confirmed apply
[group('run')]
[no-exit-message]
@demo *ARGS:
    {{ python }} -m taskyard.demo "$@"

# runs everything in the foreground, data in .taskyard (stop with Ctrl-C)
[group('run')]
[no-exit-message]
@serve *ARGS:
    .venv/bin/taskyard dev --data .taskyard "$@"

# measures throughput and latency; --json prints one object as the last line
[group('run')]
[no-exit-message]
@bench *ARGS:
    .venv/bin/taskyard bench "$@"

# runs the whole control plane under faults, from seeds; --json prints one object as the last line
[group('run')]
[no-exit-message]
@simulate *ARGS:
    {{ python }} -m taskyard.simulation "$@"

# breaks a running system under load, and judges what is left; --json prints one object as the last line
[group('run')]
[no-exit-message]
@chaos *ARGS:
    {{ python }} -m taskyard.chaos "$@"

# sends requests that nobody means to the API of a running system, from a seed; --json prints one object as the last line
[group('run')]
[no-exit-message]
@fuzz *ARGS:
    {{ python }} -m taskyard.fuzz "$@"

# runs the whole gate, two files at a time and the longest first, since most of them wait (arguments go to pytest)
[group('check')]
@test *ARGS:
    {{ python }} -m pytest --numprocesses 2 --dist loadfile "$@"

# writes what the images hold as CycloneDX JSON below dist/sbom: names, versions and digests, from the hashed requirements
[group('write')]
@sbom:
    mkdir -p dist/sbom
    for name in runtime agent; do \
        .venv/bin/cyclonedx-py requirements "requirements/$name.txt" --output-format JSON --output-reproducible \
            --output-file "dist/sbom/$name.cdx.json"; \
    done

# checks format and lint
[group('check')]
@lint:
    .venv/bin/ruff format --check --quiet
    .venv/bin/ruff check --quiet

# checks types
[group('check')]
@types:
    .venv/bin/pyright

# checks that imports run one way and that what chooses stays pure
[group('check')]
@imports:
    .venv/bin/lint-imports

# checks that the generated files are those that contracts and users of NATS give
[group('check')]
@generated:
    {{ python }} -m taskyard.contracts.generate --check
    {{ python }} -m taskyard.embedded.deployment --check

# formats the code and mends what lint can mend
[group('write')]
@format:
    .venv/bin/ruff check --fix --quiet
    .venv/bin/ruff format --quiet

# writes JSON Schema and AsyncAPI from the contracts, and deploy/nats-accounts.conf
[group('write')]
@generate:
    {{ python }} -m taskyard.contracts.generate
    {{ python }} -m taskyard.embedded.deployment

# pins requirements/*.in to hashed *.txt without naming a registry
[group('write')]
requirements *ARGS:
    #!/bin/sh
    set -eu
    tools=$(mktemp -d)
    trap 'rm -rf "$tools"' EXIT
    {{ python }} -m venv "$tools"
    "$tools/bin/pip" install --quiet --disable-pip-version-check uv
    compile() {
        "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url "$@"
    }
    for name in dev terraform; do
        compile "requirements/$name.in" -o "requirements/$name.txt" "$@"
    done
    # What images hold is what was tested: the versions of dev. Litestar asks for what only its tests and its own command
    # line use; what installs this list takes it as it is (--no-deps).
    unused=$(printf -- '--no-emit-package %s ' faker polyfactory litestar-htmx rich-click)
    for name in runtime agent; do
        compile "requirements/$name.in" -o "requirements/$name.txt" --constraint requirements/dev.txt $unused
    done
