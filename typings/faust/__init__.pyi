"""The calls of Faust 0.15 that Freshet makes, and the private attributes that `stream.clients` uses."""

from faust.app.base import App as App
from faust.auth import SASLCredentials as SASLCredentials
from faust.auth import SSLCredentials as SSLCredentials
from faust.topics import Topic as Topic
