-- Full text over PostgreSQL: the filters of terms of one schema, whose quoted name replaces {schema}.

-- name: add
SELECT {schema}.add_term_filters($1, $2, $3, $4, $5, $6, $7)

-- name: look
-- The newest $7 blocks of a log that begin after $3 and before $4, newest first: those that admit the masks $5, those that are not
-- followed by the block above, and the last one. `above` is where the block above begins. A filter of another version than $6 admits all.
SELECT first_seq, end_seq, above, admits
  FROM (SELECT *, lag(first_seq) OVER newest AS above, lead(first_seq) OVER newest IS NULL AS lowest
          FROM (SELECT first_seq, end_seq,
                       CASE WHEN version = $6 THEN filter & ($5::varbit[])[size] = ($5::varbit[])[size] ELSE true END AS admits
                  FROM {schema}.term_filters
                 WHERE tenant_id = $1 AND log = $2 AND first_seq > $3 AND first_seq < $4
                 ORDER BY first_seq DESC LIMIT $7) AS blocks
        WINDOW newest AS (ORDER BY first_seq DESC)) AS seen
 WHERE admits OR lowest OR above IS DISTINCT FROM end_seq
 ORDER BY first_seq DESC
