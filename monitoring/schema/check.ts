// The types that grafana/digitd.json must satisfy. tests/test_monitoring.py appends it: a literal, so that misspelt
// and unknown properties are errors too, also in each panel's own options.
import type { AnnotationQuery, Dashboard, DataQuery, Panel, RowPanel, VariableModel } from "@grafana/schema";
import type { FieldConfig as HeatmapField, Options as Heatmap } from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { FieldConfig as TimelineField, Options as Timeline } from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { FieldConfig as TimeSeriesField, Options as TimeSeries } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON holds the values of enumerations, not their names.
type Plain<T> = 0 extends 1 & T
  ? T
  : T extends string
    ? `${T}`
    : T extends number | boolean | null | undefined
      ? T
      : T extends ReadonlyArray<infer Item>
        ? Plain<Item>[]
        : T extends object
          ? { [Key in keyof T]: Plain<T[Key]> }
          : T;

// What the Prometheus data source reads from a query and from an annotation; its types are not published.
interface PrometheusQuery extends DataQuery {
  expr: string;
  legendFormat?: string;
  format?: "time_series" | "table" | "heatmap";
  range?: boolean;
  instant?: boolean;
  interval?: string;
}
interface PrometheusAnnotation extends AnnotationQuery<PrometheusQuery> {
  titleFormat?: string;
  textFormat?: string;
  tagKeys?: string;
  useValueForTime?: "on" | false;
}

type Of<Kind extends string, Options, Field> = Omit<Plain<Panel<Options, Field>>, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Kind;
  options: Plain<Partial<Options>>;
  fieldConfig: { defaults: Plain<Omit<NonNullable<Panel["fieldConfig"]>["defaults"], "custom">> & { custom?: Plain<Partial<Field>> }; overrides: [] };
  targets: Plain<PrometheusQuery>[];
};

export type Ours = Omit<Plain<Dashboard>, "panels" | "annotations" | "templating" | "time"> & {
  panels: (
    | Of<"stat", Stat, never>
    | Of<"timeseries", TimeSeries, TimeSeriesField>
    | Of<"heatmap", Heatmap, HeatmapField>
    | Of<"state-timeline", Timeline, TimelineField>
    | Plain<RowPanel>
  )[];
  annotations: { list: Plain<PrometheusAnnotation>[] };
  templating: { list: Plain<VariableModel>[] };
  time: { from: string; to: string };
};

