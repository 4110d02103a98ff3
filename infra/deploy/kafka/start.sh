#!/bin/bash
# Formats an empty storage with the administrator's SCRAM credential, then hands over to the image's own start, which
# finds it formatted. SCRAM credentials are in the log that brokers serve: the first one has to be there before.
set -euo pipefail
umask 077

cat > /tmp/format.properties <<SETTINGS
node.id=$KAFKA_NODE_ID
process.roles=$KAFKA_PROCESS_ROLES
listeners=$KAFKA_LISTENERS
advertised.listeners=$KAFKA_ADVERTISED_LISTENERS
listener.security.protocol.map=$KAFKA_LISTENER_SECURITY_PROTOCOL_MAP
inter.broker.listener.name=$KAFKA_INTER_BROKER_LISTENER_NAME
controller.listener.names=$KAFKA_CONTROLLER_LISTENER_NAMES
controller.quorum.voters=$KAFKA_CONTROLLER_QUORUM_VOTERS
log.dirs=$KAFKA_LOG_DIRS
SETTINGS
# In a file, one argument a line: the arguments of a process can be read by others.
cat > /tmp/format.arguments <<ARGUMENTS
format
--ignore-formatted
--cluster-id
$CLUSTER_ID
--config
/tmp/format.properties
--add-scram
SCRAM-SHA-512=[name=$ADMIN_USERNAME,password=$ADMIN_PASSWORD]
ARGUMENTS
/opt/kafka/bin/kafka-storage.sh @/tmp/format.arguments
rm /tmp/format.arguments
exec /etc/kafka/docker/run
