"""The only module that opens sessions: reads with a time limit, writes that are retried, failures in our words."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any, TypeAlias, cast

from neo4j import (
    READ_ACCESS,
    WRITE_ACCESS,
    Driver,
    GraphDatabase,
    ManagedTransaction,
    Query,
    Session,
    Transaction,
    unit_of_work,
)
from neo4j.exceptions import (
    ClientError,
    ConfigurationError,
    DriverError,
    IncompleteCommit,
    Neo4jError,
    ServiceUnavailable,
)

from kg.errors import KGError, QueryRefused, StoreFailed, StoreUnavailable
from kg.local_server import Address, LocalServer
from kg.settings import Settings

CONNECT_TIMEOUT_S = 8
Row: TypeAlias = dict[str, Any]
LOCK_TIMEOUT_S = 3
LOCK = "MATCH (f:Format) SET f.locked = true"
TYPES_OF_ONE_STATEMENT = """
UNWIND $types AS type CREATE (a:SelfTest)-[r:$(type)]->(b:SelfTest) RETURN collect(type(r)) AS written
"""


class CommitUnknown(KGError):
    """The connection broke while committing: the transaction may be in the graph. Look at its marker, then go on."""


class GraphStore:
    """A connection to one Neo4j; use ``open_store`` to get one."""

    def __init__(self, driver: Driver, address: Address) -> None:
        self._driver, self.address = driver, address

    def read(self, query: str, /, *, timeout_s: float = 60, **parameters: Any) -> list[Row]:
        """All rows of a read query; retried when the server asks for it.

        The time limit is set with each query: the server's own is only a default.
        """

        @unit_of_work(timeout=timeout_s)
        def work(transaction: ManagedTransaction) -> list[Row]:
            return [dict(record) for record in transaction.run(_text(query), parameters)]

        with self._translated(), self._driver.session(default_access_mode=READ_ACCESS) as session:
            return session.execute_read(work)

    def stream(self, query: str, /, *, timeout_s: float = 600, **parameters: Any) -> Iterator[Row]:
        """Rows as they come, for answers that do not fit at once; not retried."""
        with self._translated(), self._driver.session(default_access_mode=READ_ACCESS, fetch_size=10) as session:
            for record in session.run(Query(_text(query), timeout=timeout_s), parameters):
                yield dict(record)

    def write(self, query: str, /, *, timeout_s: float = 600, **parameters: Any) -> Mapping[str, int]:
        """Run one write query in a transaction of its own and return its counters (``nodes_created`` …).

        Raises:
            CommitUnknown: the answer to the commit was lost.
        """

        @unit_of_work(timeout=timeout_s)
        def work(transaction: ManagedTransaction) -> Mapping[str, int]:
            return _counters(transaction.run(_text(query), parameters))

        with self._writing() as session:
            return session.execute_write(work)

    @contextmanager
    def transaction(self, *, timeout_s: float = 600) -> Iterator["WriteTransaction"]:
        """Several writes that happen together or not at all; committed when the block ends without an error."""
        with self._writing() as session, session.begin_transaction(timeout=timeout_s) as transaction:
            yield WriteTransaction(transaction)
            transaction.commit()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only one that imports, as long as the block lasts and this process lives.

        An open transaction holds a lock on the ``:Format`` node; the server drops it with the connection.

        Raises:
            StoreUnavailable: somebody else imports.
        """
        with self._translated(), self._driver.session(default_access_mode=WRITE_ACCESS) as session:
            try:
                with session.begin_transaction(timeout=LOCK_TIMEOUT_S) as attempt:
                    attempt.run(LOCK).consume()
                    attempt.rollback()
            except Neo4jError as error:
                if not str(error.code).endswith(("TransactionTimedOut", "LockClientStopped")):
                    raise
                raise StoreUnavailable(
                    "Another import is writing to this Neo4j; wait until it has ended, then run this again."
                ) from error
            transaction = session.begin_transaction(timeout=0)  # the server's own limit would end it
            try:
                transaction.run(LOCK).consume()
                yield
            finally:
                with suppress(DriverError, Neo4jError):  # with the connection the lock is gone, too
                    transaction.close()

    @contextmanager
    def read_only(self, *, timeout_s: float) -> Iterator[Transaction]:
        """A read transaction for statements that are not ours; see ``kg.explore`` for what else guards them."""
        with self._translated(), self._driver.session(default_access_mode=READ_ACCESS, fetch_size=100) as session:
            with session.begin_transaction(timeout=timeout_s) as transaction:
                yield transaction

    @cached_property
    def dynamic_types_work(self) -> bool:
        """Whether one statement can create relationships of several types.

        Neo4j 5.26.0 wrote the type of the first row for every row; nothing is kept of this test.
        """
        with self._translated(), self._driver.session() as session, session.begin_transaction() as transaction:
            record = transaction.run(TYPES_OF_ONE_STATEMENT, types=["SELF_A", "SELF_B"]).single(strict=True)
            transaction.rollback()
            return sorted(record["written"]) == ["SELF_A", "SELF_B"]

    @property
    def server_version(self) -> str:
        """As the server says it, ``2026.08.1``."""
        with self._translated():
            return self._driver.get_server_info().agent.removeprefix("Neo4j/")

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        """A session for one transaction that is committed in the block.

        A server that is being stopped has been seen to answer COMMIT with success and throw the transaction away
        (2026.08.1); what tells is that such an answer has no bookmark.
        """
        with self._translated(), self._driver.session(default_access_mode=WRITE_ACCESS) as session:
            yield session
            if not session.last_bookmarks():
                raise CommitUnknown("Neo4j was stopped during a commit; it is not known whether it happened.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (Neo4jError, DriverError) as error:
            raise _in_our_words(error) from error


class WriteTransaction:
    """An open write transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def run(self, query: str, /, **parameters: Any) -> Mapping[str, int]:
        return _counters(self._transaction.run(_text(query), parameters))

    def rows(self, query: str, /, **parameters: Any) -> list[Row]:
        return [dict(record) for record in self._transaction.run(_text(query), parameters)]


@contextmanager
def open_store(settings: Settings) -> Iterator[GraphStore]:
    """Connect to ``NEO4J_URI``; where none is set, to the local server, which is started when it does not run.

    Raises:
        StoreUnavailable: nothing answers there, or it refuses the credentials.
    """
    if settings.neo4j_uri is not None:
        if settings.neo4j_password is None:
            raise StoreUnavailable(f"NEO4J_URI is {settings.neo4j_uri} and NEO4J_PASSWORD is not set; set it.")
        with connect(Address(settings.neo4j_uri, settings.neo4j_user, settings.neo4j_password)) as store:
            yield store
        return
    server = LocalServer(settings.home)
    try:
        with connect(server.start()) as store:
            yield store
    finally:
        server.release()


@contextmanager
def connect(address: Address, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Iterator[GraphStore]:
    """A store at a known address, checked to answer.

    Raises:
        StoreUnavailable: as ``open_store``.
    """
    # What goes wrong reaches us as an exception; at DEBUG the driver would log the parameters of queries.
    logging.getLogger("neo4j").setLevel(logging.CRITICAL)
    try:
        driver = GraphDatabase.driver(
            address.uri,
            auth=(address.user, address.password),
            connection_timeout=timeout_s,
            connection_acquisition_timeout=timeout_s,
            max_transaction_retry_time=30,
            notifications_min_severity="OFF",
            telemetry_disabled=True,
        )
    except (ConfigurationError, ValueError) as error:
        raise StoreUnavailable(f"{address.uri} is no address of a Neo4j: {error}") from error
    with driver:
        try:
            driver.verify_connectivity()
        except (DriverError, Neo4jError, ValueError, OSError) as error:
            if "Neo.ClientError.Security" in str(getattr(error, "code", "")):
                raise StoreUnavailable(
                    f"Neo4j at {address.uri} refuses user {address.user!r}; check NEO4J_USER and NEO4J_PASSWORD."
                ) from error
            raise StoreUnavailable(
                f"No Neo4j answers at {address.uri} ({_reason(error)}); start it, correct NEO4J_URI, "
                "or unset NEO4J_URI to use the local one."
            ) from error
        yield GraphStore(driver, address)


def _in_our_words(error: Neo4jError | DriverError) -> KGError:
    code = str(getattr(error, "code", None) or "")
    text = str(getattr(error, "message", None) or error).strip().split("\n")[0]
    if isinstance(error, IncompleteCommit):
        return CommitUnknown("The connection broke during a commit; it is not known whether it happened.")
    if isinstance(error, ServiceUnavailable):
        return StoreUnavailable("Neo4j went away in the middle of the work; start it and run the command again.")
    if "TransactionLogError" in code or "needs to be restarted" in text:
        return StoreFailed(
            "Neo4j cannot write its log: the disk may be full. Free space, "
            "restart it (`python -m kg stop` for the local one), and run again."
        )
    if "DatabaseUnavailable" in code:
        return StoreUnavailable(
            "The database of this Neo4j is not available: it is starting or could not be recovered. Try again in a "
            "minute; the reason is in its log (`neo4j/logs/debug.log` in KGFUSE_HOME for the local one)."
        )
    if "TransactionTimedOut" in code:
        return QueryRefused("The query took longer than its time limit and was ended; narrow it or allow more time.")
    if "OutOfMemory" in code:
        return QueryRefused("The query needs more memory than a transaction may use; narrow it.")
    if isinstance(error, ClientError) and code.startswith(("Neo.ClientError.Statement", "Neo.ClientError.Procedure")):
        return QueryRefused(text)
    return StoreFailed(f"Neo4j could not do the work: {code or type(error).__name__}: {text[:300]}")


def _reason(error: Exception) -> str:
    """What the operating system said, if the driver quotes it."""
    quoted = re.search(r"\[Errno -?\d+\] ([^)]+)", str(error))
    return quoted[1] if quoted else type(error).__name__


def _counters(result: Any) -> Mapping[str, int]:
    counters = result.consume().counters
    names = ("nodes_created", "nodes_deleted", "relationships_created", "relationships_deleted", "properties_set")
    return {name: int(getattr(counters, name)) for name in names}


def _text(query: str) -> Any:
    """Our queries are constants or made with ``kg.schema.quote_name``; the driver's types ask for a literal."""
    return cast(Any, query)
