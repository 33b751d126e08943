// OHIF on the archive behind the same address.
window.config = {
  routerBasename: "/ohif",
  extensions: [],
  modes: [],
  showStudyList: true,
  defaultDataSourceName: "archive",
  dataSources: [
    {
      namespace: "@ohif/extension-default.dataSourcesModule.dicomweb",
      sourceName: "archive",
      configuration: {
        friendlyName: "Archive",
        qidoRoot: "/dicom-web",
        wadoRoot: "/dicom-web",
        wadoUriRoot: "/dicom-web",
        qidoSupportsIncludeField: false,
        supportsFuzzyMatching: false,
        imageRendering: "wadors",
        thumbnailRendering: "wadors",
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: "studies" },
      },
    },
  ],
};
