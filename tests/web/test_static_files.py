"""Static files: of Swagger UI's package, only what the API page loads."""

import re
from importlib.resources import files
from pathlib import Path

SWAGGER_UI = Path(str(files("fastapi_swagger.resources")))


def test_what_the_api_page_loads_is_served(client):
    page = client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="(static/[^"]+)"', page)
    assert "static/swagger/swagger-ui-bundle.js" in loaded
    assert "static/swagger/swagger-ui.css" in loaded
    for path in loaded:
        assert client.get(f"/{path}").status_code == 200, path
    bundle = client.get("/static/swagger/swagger-ui-bundle.js")
    assert bundle.content == (SWAGGER_UI / "swagger-ui-bundle.js").read_bytes()
    known = {"if-none-match": bundle.headers["etag"]}
    assert client.get("/static/swagger/swagger-ui-bundle.js", headers=known).status_code == 304


def test_no_other_file_of_the_package_is_served(client):
    compiled = sorted(path for path in SWAGGER_UI.rglob("*.pyc"))
    assert (SWAGGER_UI / "__init__.py").is_file()
    others = [SWAGGER_UI / "__init__.py", *compiled]  # compiled files hold paths of this machine
    for file in others:
        name = file.relative_to(SWAGGER_UI).as_posix()
        for path in (name, f"x/../{name}", f"%2e/{name}", f"swagger-ui.css/../{name}"):
            answer = client.get(f"/static/swagger/{path}")
            assert answer.status_code == 404, path
            assert str(SWAGGER_UI).encode() not in answer.content
