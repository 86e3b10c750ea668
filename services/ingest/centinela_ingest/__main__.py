from centinela.process.start import start
from centinela_ingest.bootstrap import serve
from centinela_ingest.settings import IngestSettings

if __name__ == "__main__":
    serve(*start(IngestSettings, "ingest"))
