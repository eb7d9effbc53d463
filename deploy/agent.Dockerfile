# An agent, and what it needs: nats-py and msgspec. Terraform (or OpenTofu) is yours: mount the binary on PATH, or add a
# layer (FROM taskyard-agent, USER 0, COPY terraform /usr/local/bin/, USER 10001:10001). /var/lib/taskyard keeps the
# agent's journal and must outlive the container: it is what stops an attempt from running twice.
#   docker build -f deploy/agent.Dockerfile -t taskyard-agent .

FROM python:3.12.12-slim AS packages
WORKDIR /build
COPY requirements/agent.txt .
RUN python -m venv /opt/taskyard \
 && /opt/taskyard/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps --require-hashes -r agent.txt \
 && /opt/taskyard/bin/pip uninstall --yes pip

FROM python:3.12.12-slim
ENV PATH=/opt/taskyard/bin:$PATH PYTHONPATH=/srv PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TASKYARD_DIRECTORY=/var/lib/taskyard
COPY --from=packages /opt/taskyard /opt/taskyard
COPY services/taskyard/agent/ /srv/taskyard/agent/
COPY libs/taskyard/settings.py libs/taskyard/task.py libs/taskyard/private_files.py /srv/taskyard/
COPY contracts/taskyard/ /srv/taskyard/
RUN python -m compileall -q /srv \
 && install -d -o 10001 -g 10001 -m 700 /var/lib/taskyard
USER 10001:10001
WORKDIR /tmp
VOLUME /var/lib/taskyard
STOPSIGNAL SIGTERM
# The first process takes the status of what has lost its parent, and starts an agent that was killed again, so that what it
# ran goes on. It ends in order with the container: there is no hand-over from one container to the next.
ENTRYPOINT ["python", "-m", "taskyard.agent.init", "python", "-m"]
CMD ["taskyard.agent"]
