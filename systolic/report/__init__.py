"""Pages about whole models and runs: shows what others counted, as tables, files and one HTML page."""

from systolic.report.costs import RunReport as RunReport
from systolic.report.summaries import Summary as Summary
from systolic.report.summaries import summary as summary
