#!/bin/sh
# Create a kind cluster and a local registry for `tilt up`. Running it again is safe; `kind.sh delete` deletes both.
set -eu
cd "$(dirname "$0")"
name=decklog registry=decklog-registry port=5001

if [ "${1:-}" = delete ]; then
  kind delete cluster --name "$name"
  docker rm --force --volumes "$registry"
  exit
fi
if [ "$(docker inspect --format '{{.State.Running}}' "$registry" 2>/dev/null || true)" != true ]; then
  docker rm --force "$registry" >/dev/null 2>&1 || true
  docker run --detach --restart unless-stopped --name "$registry" --publish "127.0.0.1:$port:5000" registry:2.8.3
fi
kind get clusters | grep -qx "$name" || kind create cluster --config kind.yaml --wait 120s
for node in $(kind get nodes --name "$name"); do
  docker exec "$node" mkdir -p "/etc/containerd/certs.d/localhost:$port"
  printf '[host."http://%s:5000"]\n' "$registry" |
    docker exec --interactive "$node" cp /dev/stdin "/etc/containerd/certs.d/localhost:$port/hosts.toml"
done
docker network connect kind "$registry" 2>/dev/null || true
kubectl --context "kind-$name" apply -f registry.yaml
