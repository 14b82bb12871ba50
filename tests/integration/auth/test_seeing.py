"""Who may see what there is to see of a service with accounts."""

import httpx2

from tests.integration.auth.conftest import Person
from tests.integration.rest.reading import problem


async def test_figures_are_for_administrators(http: httpx2.AsyncClient, administrator: Person, ada: Person) -> None:
    problem(await http.get("/metrics"), 401, "not_authenticated")
    problem(await http.get("/metrics", headers=ada.headers), 403, "insufficient_scope")

    assert "colloquy_runs" in (await http.get("/metrics", headers=administrator.headers)).text


async def test_all_of_the_audit_log_is_for_administrators_and_ones_own_for_everybody(
    http: httpx2.AsyncClient, administrator: Person, ada: Person, ben: Person
) -> None:
    problem(await http.get("/api/audit"), 401, "not_authenticated")
    problem(await http.get("/api/audit", headers=ada.headers), 403, "insufficient_scope")
    problem(await http.get("/api/auth/me/audit"), 401, "not_authenticated")

    own = (await http.get("/api/auth/me/audit", headers=ada.headers)).json()["items"]
    others = await http.get("/api/audit", params={"user_id": ben.id}, headers=administrator.headers)

    done = ["user.sign_in", "user.register"]
    for entries, person in ((own, ada), (others.json()["items"], ben)):
        assert [entry["action"] for entry in entries] == done
        assert {entry["user_id"] for entry in entries} == {person.id}


async def test_what_is_done_with_a_token_is_noted_with_its_sign_in(http: httpx2.AsyncClient, ada: Person) -> None:
    session = (await http.post("/api/sessions", json={}, headers=ada.headers)).json()["id"]
    (await http.delete(f"/api/sessions/{session}", headers=ada.headers)).raise_for_status()

    newest = (await http.get("/api/auth/me/audit", headers=ada.headers)).json()["items"][0]
    signed_in = (await http.get("/api/auth/sign-ins", headers=ada.headers)).json()["items"]

    assert (newest["action"], newest["subject"]["id"]) == ("session.delete", session)
    assert newest["credential"] == {"kind": "sign_in", "id": signed_in[0]["id"]}
