"""Certificates made on the spot with the openssl command, valid for this test only."""
import os
import subprocess

CONFIG = """
[ca]
default_ca = this
[this]
dir = {folder}
new_certs_dir = {folder}
database = {folder}/index.txt
serial = {folder}/serial
crlnumber = {folder}/crlnumber
certificate = {folder}/{name}.pem
private_key = {folder}/{name}.key
default_md = sha256
default_days = 30
default_crl_days = 30
policy = policy
copy_extensions = copy
unique_subject = no
[policy]
commonName = supplied
"""


class Authority:
    """A CA in its own folder; issue() makes a certificate and its key, revoke() takes it back."""

    def __init__(self, folder, name="ca"):
        self.folder, self.name = str(folder), name
        os.makedirs(self.folder, exist_ok=True)
        self.write("openssl.cnf", CONFIG.format(folder=self.folder, name=name))
        for file, text in (("index.txt", ""), ("serial", "1000\n"), ("crlnumber", "01\n")):
            self.write(file, text)
        self.cert = self.path(name + ".pem")
        self.run("req", "-x509", "-new", *self.new_key(name), "-days", "400", "-out", self.cert,
                 "-subj", f"/CN=Windrow test {name}",
                 "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def run(self, *words):
        result = subprocess.run(["openssl", *words], cwd=self.folder, capture_output=True,
                                text=True, stdin=subprocess.DEVNULL, timeout=90)
        assert result.returncode == 0, f"openssl {' '.join(words)}: {result.stderr}"

    def new_key(self, name):
        self.run("ecparam", "-name", "prime256v1", "-genkey", "-noout",
                 "-out", self.path(name + ".key"))
        os.chmod(self.path(name + ".key"), 0o600)
        return ["-key", self.path(name + ".key")]

    def issue(self, name, alternative="IP:127.0.0.1,DNS:localhost", start=None, end=None):
        """(certificate, key); start and end as YYYYMMDDHHMMSSZ for one out of date."""
        self.run("req", "-new", *self.new_key(name), "-subj", f"/CN={name}",
                 "-addext", f"subjectAltName={alternative}", "-out", self.path(name + ".csr"))
        dates = ["-startdate", start, "-enddate", end] if start else ["-days", "300"]
        self.run("ca", "-batch", "-notext", "-config", self.path("openssl.cnf"), *dates,
                 "-in", self.path(name + ".csr"), "-out", self.path(name + ".pem"))
        return self.path(name + ".pem"), self.path(name + ".key")

    def self_signed(self, name, alternative="IP:127.0.0.1,DNS:localhost"):
        self.run("req", "-x509", "-new", *self.new_key(name), "-days", "300",
                 "-subj", f"/CN={name}", "-addext", f"subjectAltName={alternative}",
                 "-out", self.path(name + ".pem"))
        return self.path(name + ".pem"), self.path(name + ".key")

    def revoke(self, cert):
        self.run("ca", "-config", self.path("openssl.cnf"), "-revoke", cert)

    def crl(self):
        """The list of what was revoked so far."""
        path = self.path("crl.pem")
        self.run("ca", "-config", self.path("openssl.cnf"), "-gencrl", "-out", path)
        return path
