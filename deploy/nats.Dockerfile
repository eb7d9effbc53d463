# nats-server under a user of its own: the image that it comes in runs it as root.
FROM nats:2.15.1-alpine
RUN install -d -o 10001 -g 10001 -m 700 /data
USER 10001:10001
