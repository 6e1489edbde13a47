"""nginx with the file that we ship, its names, ports and certificate replaced by ones that this machine has."""

import re
import subprocess
from pathlib import Path

from tests.e2e.processes import ROOT

MAIN = """
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
{connections}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/killboard.conf;
}}
"""


def write_configuration(folder: Path, port: int, servers: list[int]) -> str:
    """The path of a configuration that listens with TLS at `port` of loopback, before boards at these two ports."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    site = (ROOT / "deploy/nginx.conf").read_text()
    site = re.sub(r"server \{\s+listen 80;.*?\n\}\n", "", site, count=1, flags=re.DOTALL)
    site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;").replace("board.example.org;", "localhost;")
    site = re.sub(r"ssl_certificate \S+;", f"ssl_certificate {certificate};", site)
    site = re.sub(r"ssl_certificate_key \S+;", f"ssl_certificate_key {key};", site)
    site = site.replace("/var/log/nginx/", f"{folder}/")
    for shipped, here in zip((4000, 4001), servers, strict=True):
        site = site.replace(f"127.0.0.1:{shipped} ", f"127.0.0.1:{here} ")
    (folder / "killboard.conf").write_text(site)
    main = folder / "nginx.conf"
    documented = re.search(r"^```nginx\n(.*?)^```", (ROOT / "docs/deploy.md").read_text(), re.MULTILINE | re.DOTALL)
    assert documented
    main.write_text(MAIN.format(folder=folder, connections=documented[1]))
    return str(main)
