"""What personas and scripts know of the person who talks with them."""

import httpx2

from tests.integration.auth.conftest import Person

CLOCK = 'ctx.set_output("zone", ctx.get_current_time("%Z"))'


async def test_prompts_have_the_users_name_and_scripts_their_time(http: httpx2.AsyncClient, ada: Person) -> None:
    about = {"display_name": "Ada Lovelace", "timezone": "Asia/Tokyo"}
    (await http.patch("/api/auth/me", json=about, headers=ada.headers)).raise_for_status()
    module = {"name": "clock", "type": "advanced", "script": CLOCK, "content": ""}
    (await http.post("/api/modules", json=module, headers=ada.headers)).raise_for_status()
    persona = {"name": "Butler", "template": "For ${user.name}, at @clock."}
    persona_id = (await http.post("/api/personas", json=persona, headers=ada.headers)).json()["id"]
    body = {"persona_id": persona_id}
    session = (await http.post("/api/sessions", json=body, headers=ada.headers)).raise_for_status().json()["id"]

    sent = await http.post(f"/api/sessions/{session}/messages", json={"content": "Hello"}, headers=ada.headers)

    run_id = sent.raise_for_status().json()["run_id"]
    run = (await http.get(f"/api/sessions/{session}/runs/{run_id}", headers=ada.headers)).json()
    assert "For Ada Lovelace, at JST." in str(run)
    tried = await http.post("/api/templates/resolve", json={"template": persona["template"]}, headers=ada.headers)
    assert "For Ada Lovelace, at JST." in tried.text
