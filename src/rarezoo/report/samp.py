"""A table sent to the programs that listen on this machine (TOPCAT, Aladin, DS9 …) by IVOA's SAMP."""

import warnings
from pathlib import Path
from typing import Any

from rarezoo.errors import OutputError

_LOADS_TABLES = "table.load.votable"


def send_votable(path: Path, *, name: str, patience: int = 60) -> list[str]:
    """Ask every program that takes VOTables to load one; the names of those that did.

    Args:
        path: VOTable file; may be removed afterwards.
        name: what the programs call it.
        patience: longest wait for each program, s.

    Raises:
        OutputError: no SAMP hub is running, nobody there takes tables, or nobody could load it.
    """
    with warnings.catch_warnings():
        # Astropy hands SAMP over to pyvo, which is not needed for anything else here.
        warnings.simplefilter("ignore")
        from astropy.samp import SAMPIntegratedClient
    client = SAMPIntegratedClient(name="rarezoo", metadata={"samp.name": "rarezoo"})
    _connect(client)
    try:
        return _loaded(client, path, name=name, patience=patience)
    finally:
        client.disconnect()


def _connect(client: Any) -> None:
    from astropy.samp import SAMPHubError

    try:
        client.connect()
    except (SAMPHubError, KeyError, OSError) as problem:
        raise OutputError(
            f"no SAMP hub is running ({problem})", value="--samp", fix="Start TOPCAT or Aladin first."
        ) from problem


def _loaded(client: Any, path: Path, *, name: str, patience: int) -> list[str]:
    listeners = client.get_subscribed_clients(_LOADS_TABLES)
    if not listeners:
        raise OutputError("nobody takes tables by SAMP", value="--samp", fix="Start TOPCAT or Aladin first.")
    parameters = {"url": path.resolve().as_uri(), "table-id": name, "name": name}
    message = {"samp.mtype": _LOADS_TABLES, "samp.params": parameters}
    answers = {_name(client, one): _answer(client, one, message, patience) for one in sorted(listeners)}
    loaded = [program for program, problem in answers.items() if not problem]
    if not loaded:
        raise OutputError(
            "no program could load the table", value="; ".join(f"{one}: {why}" for one, why in answers.items()),
            fix="Write it to a file instead: --format votable --out FILE.",
        )  # fmt: skip
    return loaded


def _name(client: Any, listener: str) -> str:
    return str(client.get_metadata(listener).get("samp.name", listener))


def _answer(client: Any, listener: str, message: dict[str, Any], patience: int) -> str:
    """What a program complains of; empty if it has loaded the table."""
    from astropy.samp import SAMPProxyError

    try:
        response = client.call_and_wait(listener, message, str(patience))
    except (SAMPProxyError, OSError) as problem:
        return str(problem)
    if response["samp.status"] != "samp.error":
        return ""
    return str(response.get("samp.error", {}).get("samp.errortxt", "refused"))
