# PostgreSQL with one table, made at the first start.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/shop
export PGHOST=/tmp
if [ ! -d "$data" ]; then
  "$bin/initdb" -D "$data" --auth=trust >/dev/null
  echo "host all all all trust" >>"$data/pg_hba.conf"
  "$bin/pg_ctl" -D "$data" -o "-k /tmp -c listen_addresses=" -w start >/dev/null
  "$bin/createdb" shop
  "$bin/psql" -q shop -c "create table orders (what text); insert into orders values ('tea'), ('bread')"
  "$bin/pg_ctl" -D "$data" -w stop >/dev/null
fi
exec "$bin/postgres" -D "$data" -k /tmp -c listen_addresses='*'
