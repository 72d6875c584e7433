"""plot.py < results.jsonl > plot.svg: bars, one panel for each workload, the best at the top."""
import html
from results import FIGURES, is_limit, is_ours, read

r = read()
PANELS = [("W1", "p50"), ("W2", "asks"), ("W2", "cpu_s_per_million"), ("W3", "tells"), ("W4", "throughput"),
          ("W5", "asks"), ("W6", "rss_per_connection"), ("W7", "p99"), ("L1", "ns_per_ask"), ("L2", "asks"),
          ("L3", "tells")]
TITLES = {
    "W1": "one ask in flight: p50, us", "W2": "128 asks in flight: thousand asks/s",
    "W3": "one-way: thousand messages/s", "W4": "asks of 1 MiB: MiB/s",
    "W5": "256 connections: thousand asks/s", "W6": "memory of an idle connection: KiB",
    "W7": "small asks beside 8 MiB ones: p99, ms", "L1": "local ask: ns",
    "L2": "local, 128 in flight: thousand asks/s", "L3": "local one-way: thousand messages/s",
}
COLUMN, BAR, LABEL, GAP = 440, 17, 125, 34
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #333 } .title { font-weight: 600 } .note { fill: #777 }
.ours { fill: #1971c2 } .limit { fill: #adb5bd } .peer { fill: #e8912d }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .note { fill: #999 } .ours { fill: #4dabf7 }
.limit { fill: #5c636a } .peer { fill: #d9822b } }"""


def panel(workload, metric):
    """Its title and its bars: (name, value, what is written, class)."""
    _, _, _, scale, form, up = next(f for f in FIGURES if f[:2] == (workload, metric))
    bars = []
    for peer in r.peers:
        value = r.median(peer, workload, metric)
        if value is not None:
            kind = "ours" if is_ours(peer) else "limit" if is_limit(peer) else "peer"
            bars.append((peer.removeprefix("local-"), value / scale, form % (value / scale), kind))
    bars.sort(key=lambda b: b[1], reverse=up)
    title = "128 asks in flight: CPU s per million" if metric.startswith("cpu") else TITLES[workload]
    return "%s %s (%s is better)" % (workload, title, "more" if up else "less"), bars


def draw(x, y, title, bars):
    # the room for bars, with room for the figure behind the longest
    room, top = COLUMN - LABEL - 70, max(b[1] for b in bars)
    print('<text class="title" x="%d" y="%d">%s</text>' % (x, y + 12, html.escape(title)))
    for i, (name, value, text, kind) in enumerate(bars):
        at, width = y + 20 + i * BAR, max(1.0, room * value / top)
        print('<text x="%d" y="%d" text-anchor="end">%s</text>' % (x + LABEL - 6, at + 12, html.escape(name)))
        print('<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>' % (kind, x + LABEL, at + 1, width, BAR - 4))
        print('<text x="%.1f" y="%d">%s</text>' % (x + LABEL + width + 5, at + 12, text))


panels = [(t, b) for t, b in (panel(*p) for p in PANELS) if b]
heights, places = [40, 40], []
for title, bars in panels:
    column = heights.index(min(heights))
    places.append((column, heights[column]))
    heights[column] += 20 + len(bars) * BAR + GAP
width, height = 2 * COLUMN + 30, max(heights)
print('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d">' % (width, height, width, height))
print("<style>%s</style>" % STYLE)
for i, (kind, text) in enumerate([("ours", "this library"), ("limit", "written by hand, or plain actix and tokio"), ("peer", "peers")]):
    x = (10, 130, 400)[i]
    print('<rect class="%s" x="%d" y="10" width="12" height="12" rx="2"/><text x="%d" y="20">%s</text>' % (kind, x, x + 17, text))
print('<text class="note" x="480" y="20">%s, %s cores, medians</text>' % (r.head.get("at", "")[:10], r.head.get("cores", "?")))
for (column, y), (title, bars) in zip(places, panels):
    draw(10 + column * (COLUMN + 10), y, title, bars)
print("</svg>")
