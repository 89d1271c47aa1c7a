-- The usage of one tenant.

-- name: place
SELECT id, schema, isolation FROM decklog.tenants WHERE name = $1

-- name: heads
-- Records of each log of the tenant $1.
SELECT log, next_seq FROM decklog.heads WHERE tenant_id = $1

-- name: rejected
SELECT rejected, last_at, coalesce(last_code, '') FROM decklog.rejections WHERE tenant_id = $1
