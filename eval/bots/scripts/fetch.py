"""Visits the site with Python's standard library: fetch.py urllib|http.client JOB."""

import http.client
import json
import ssl
import sys
import urllib.parse
import urllib.request

how, job = sys.argv[1], json.loads(sys.argv[2])
tls = ssl.create_default_context(cafile=job["ca"])
origin = urllib.parse.urlsplit(job["origin"])


def with_urllib(path, headers):
    with urllib.request.urlopen(urllib.request.Request(job["origin"] + path, headers=dict(headers)), context=tls) as answer:
        answer.read()


def with_http_client(path, headers):
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status}")


connection = http.client.HTTPSConnection(origin.hostname, origin.port, context=tls)
get = {"urllib": with_urllib, "http.client": with_http_client}[how]
get("/", job.get("page", []))
for n in range(job["calls"]):
    get(f"/api/items/{n % 200}", job.get("call", []))
