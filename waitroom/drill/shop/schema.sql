CREATE TABLE IF NOT EXISTS products (
    id          INTEGER PRIMARY KEY,
    stock       INTEGER NOT NULL CHECK (stock >= 0)
);

CREATE TABLE IF NOT EXISTS baskets (
    session     TEXT PRIMARY KEY
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS orders (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    session     TEXT NOT NULL,
    buyer       TEXT NOT NULL,
    email       TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS orders_by_session ON orders (session, number);
