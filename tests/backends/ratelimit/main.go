// Command ratelimit is Envoy's rate limit service with a Redis of its own in memory, for tests of limits that know each client.
// It reads the variables of that service.
package main

import (
	"log"
	"os"

	"github.com/alicebob/miniredis/v2"
	"github.com/envoyproxy/ratelimit/src/service_cmd/runner"
	"github.com/envoyproxy/ratelimit/src/settings"
)

func main() {
	redis, err := miniredis.Run()
	if err != nil {
		log.Fatal(err)
	}
	os.Setenv("REDIS_SOCKET_TYPE", "tcp")
	os.Setenv("REDIS_URL", redis.Addr())
	service := runner.NewRunner(settings.NewSettings())
	service.Run()
}
