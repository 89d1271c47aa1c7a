"""Piccolo's configuration: which engine, which app. For new migrations: `PICCOLO_CONF=decklog.timescale.control.piccolo_conf`."""

from piccolo.conf.apps import AppRegistry

from decklog.timescale.control.piccolo_engine import ENGINE

DB = ENGINE
APP_REGISTRY = AppRegistry(apps=["decklog.timescale.control.piccolo_app"])
