"""The viewer: arrays and timelines as a page that stands alone, or as a widget in a notebook.

It shows descriptions, plain data that JSON can hold, and knows no array: the page itself clocks the
registers, from their first values and the values on the ports.
"""

from systolic.viewer.description import Stay as Stay
from systolic.viewer.description import describe_array as describe_array
from systolic.viewer.description import describe_timeline as describe_timeline
from systolic.viewer.description import stays_of as stays_of
from systolic.viewer.view import View as View
