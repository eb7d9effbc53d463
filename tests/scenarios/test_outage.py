"""Parts that are away for a while, and processes that stand still: what was accepted waits, and then goes on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import nats
import psutil
import pytest
from log_checks import read_log
from system import System, running
from witnessed_load import Load, new_id
